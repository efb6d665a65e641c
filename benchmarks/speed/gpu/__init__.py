"""Speed on a card: ``python -m benchmarks.speed.gpu`` measures models of 7B parameters with random weights.

What a token costs does not depend on what the weights say, so nothing is downloaded: a model is drawn on the device
from its configuration, and its processor is the tests' with the checkpoint's image sizes. No answer means anything.
"""
