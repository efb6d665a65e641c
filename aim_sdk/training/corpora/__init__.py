"""Corpora of images and texts, in the files people have: recognised, filtered, and streamed for training."""

from aim_sdk.training.corpora.config import CorpusConfig
from aim_sdk.training.corpora.corpus import Corpus, open_corpus
from aim_sdk.training.corpora.documents import Document, Pair
from aim_sdk.training.corpora.drops import Drops
from aim_sdk.training.corpora.images import Resolver
from aim_sdk.training.corpora.stream import Cursor, DocumentStream

__all__ = ["Corpus", "CorpusConfig", "Cursor", "Document", "DocumentStream", "Drops", "Pair", "Resolver", "open_corpus"]
