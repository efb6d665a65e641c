"""The Demonstration Bank: demonstrations are read once, their fused tokens kept, found and reused.

``bank`` is what users hold. ``store`` says what a place to keep entries can do, and is the one in memory; ``disk`` is
the one on disk, made of ``records``.
"""

from aim_sdk.bank.bank import BankEntry, DemonstrationBank

__all__ = ["BankEntry", "DemonstrationBank"]
