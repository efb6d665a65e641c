"""The Demonstration Bank: demonstrations are read once, their fused tokens kept, found and reused.

``bank`` is what users hold, ``collection`` what every bank is, ``view`` what selectors look at. ``store`` says what a
place to keep entries can do, and is the one in memory; ``disk`` is the one on disk, made of ``records``.
"""

from aim_sdk.bank.bank import DemonstrationBank, DiskBank, NewBankWarning
from aim_sdk.bank.disk.maintenance import BankStats
from aim_sdk.bank.entry import BankEntry
from aim_sdk.bank.view import BankView

__all__ = ["BankEntry", "BankStats", "BankView", "DemonstrationBank", "DiskBank", "NewBankWarning"]
