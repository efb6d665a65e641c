"""The Demonstration Bank: demonstrations are read once, their fused tokens kept, found and reused.

``bank`` is what users hold; ``store`` says what a place to keep entries can do, and keeps them in memory; ``disk`` keeps them
on disk (``records`` and ``segments`` are the bytes, ``index`` finds them, ``archive`` moves them).
"""

from aim_sdk.bank.bank import BankEntry, DemonstrationBank

__all__ = ["BankEntry", "DemonstrationBank"]
