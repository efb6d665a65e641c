"""Banks on disk.

``store`` is what a bank uses: ``folder`` (whose turn it is to write), ``segments`` (the files that hold everything) of
``writes``, found by ``index`` (``rows`` over a ``connection``). ``recovery`` says what the segments add up to.
``maintenance`` and ``archive`` care for a bank. The protocol is written down in ``docs/file-formats.md``.
"""
