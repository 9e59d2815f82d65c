"""Metrics that can be trusted: exact rank statistics of scores and maps, their intervals and comparisons.

Functions take NumPy arrays, scores or maps first, labels or masks second, and return a float. A missing class is a
`MetricError`, never 0. `README.md` in this folder says which metric answers which question.
"""
