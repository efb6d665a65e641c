"""Is the verdict of an assessment right? Banks whose truth is known."""
