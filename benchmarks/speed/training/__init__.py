"""Tokens that the trainer's steps learn from a second, over their floor: what the same batches cost without the SDK.

The floor has its inputs ready (decoded, preprocessed, tokenised, padded) and computes what must be computed: the bare
forward that reads the demonstrations, the teacher's bare forward with the demonstrations' images (objective
``distill``), the projector, the bare forward and backward with fused embeddings, the loss, Adam's step, the decay
towards the start and the average. An image of pocket becomes visual tokens once per step, however many prompts hold it.

Ours is `aim_sdk.training.train` on a corpus on disk, its pace as its own log tells it, at the default settings but for
the objective and the episodes, which are the pages' own texts: new names and their views are drawn again each time, so
they are never cached. Each objective is measured (a) with empty caches, (b) with all readings and targets on disk, as
from the second epoch on; there the floor neither reads nor asks the teacher. Both compute the same loss, which is
checked.

The first steps, in which the worker starts, are left out; after the last one there are as many documents as the run
prepares ahead, so that this work is in what is measured.

`floor` says what a step is and what it costs at least, `pocket` and `hf` how a backbone runs without the SDK, `capture`
how their inputs are found, `measure` runs floors and trainer in turns.
"""
