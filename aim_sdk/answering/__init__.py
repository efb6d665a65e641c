"""Whole files of queries: read, answered line by line, kept, resumed and reported."""
