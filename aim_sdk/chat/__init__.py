"""Few-shot through ordinary chat messages: pairs of turns are demonstrations, the last turn is the query."""
