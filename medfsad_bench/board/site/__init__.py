"""The board as a folder of static pages, which opens from disk and asks nobody for anything.

    build.py     which pages there are
    payload.py   what the board's page filters and draws: every track by every metric
    cells.py     one run: draws, supports, the command, its downloads
    entries.py   methods, data sets, comparisons, protocols, changes
    pages/       templates, one style sheet, the board's script

Every text of a row is escaped by the templates, and made visible where it would turn the text around it.
"""
