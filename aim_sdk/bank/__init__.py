"""The Demonstration Bank: demonstrations are read once, and their fused tokens are kept, found and reused.

``bank`` is what users hold, ``collection`` is what every bank is, and ``view`` is what selectors look at. ``store``
defines what keeps entries, and holds the store in memory; ``disk`` is the store on disk, made of ``records``.
"""

from aim_sdk.bank.bank import DemonstrationBank, DiskBank, NewBankWarning
from aim_sdk.bank.disk.maintenance import BankStats
from aim_sdk.bank.entry import BankEntry
from aim_sdk.bank.view import BankView

__all__ = ["BankEntry", "BankStats", "BankView", "DemonstrationBank", "DiskBank", "NewBankWarning"]
