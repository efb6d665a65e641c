"""CLIP and other encoders of images and texts, for selectors and for corpora."""
