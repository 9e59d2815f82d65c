"""The board as a folder of static pages, which opens from disk and asks nobody for anything.

    build.py         which pages there are
    payload.py       what the board's page filters and draws: every track by every metric
    cells.py         one run: draws, supports, the command
    entries.py       methods, data sets, pairs, costs, protocols
    curves.py        means over shots, and what contaminated supports do
    pictures.py      contact sheets and examples, of images that may be passed on
    history.py       versions of a benchmark, what was superseded, what is new
    downloads.py     rows and scores as JSON, CSV and Parquet
    environment.py   what the templates are rendered with
    pages/           templates, one style sheet, the board's script

Every text of a row is escaped by the templates, and made visible where it would turn the text around it.
"""
