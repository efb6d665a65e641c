"""One plausible bug each, in the adapter of Kite: small subclasses of its parts, and the check that must name each.

What is no bug to anyone is left out: padding on the right that a causal model attends to, or a stop string that ends
no generation early (the text is cut all the same, only later).
"""

from tests.conformance.third_party import (
    mutations_of_answers,
    mutations_of_backends,
    mutations_of_endings,
    mutations_of_pictures,
    mutations_of_prompts,
    mutations_of_reading,
    unseen,
)

CAUGHT = [
    *mutations_of_reading.CAUGHT,
    *mutations_of_prompts.CAUGHT,
    *mutations_of_answers.CAUGHT,
    *mutations_of_backends.CAUGHT,
    *mutations_of_endings.CAUGHT,
    *mutations_of_pictures.CAUGHT,
    *unseen.CAUGHT,
]
"""Which check must catch which bug."""
