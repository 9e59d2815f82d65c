"""Who wins: groups of rows that may be ranked, significance, comparisons, robustness, and the pages that show them."""
