"""Banks on disk.

``store`` is what a bank uses: the entries of a ``log``. A log is a ``folder`` (whose turn it is to write), ``segments``
(the files that hold everything) of ``writes`` of ``entries``, and an ``index`` that finds them (``rows`` over a
``connection``). ``recovery`` says what the segments add up to (``scanning``, ``applying``). ``maintenance`` and
``archive`` care for a bank. The protocol is written down in ``docs/file-formats.md``.
"""
