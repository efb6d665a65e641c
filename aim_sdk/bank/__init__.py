"""The Demonstration Bank: demonstrations are read once, their fused tokens kept, found and reused.

``bank`` is what users hold. ``store`` says what a place to keep entries can do, and is the one in memory; ``disk`` is
the one on disk: ``records`` in ``segments``, found by ``index``. ``maintenance``, ``archive`` and ``convert`` care for
banks on disk.
"""

from aim_sdk.bank.bank import BankEntry, DemonstrationBank

__all__ = ["BankEntry", "DemonstrationBank"]
