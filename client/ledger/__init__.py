"""What a partner has spent of one data set's privacy: an append-only, hash-chained SQLite file.

The order is *reserve, train, commit*.  A reservation is on the disk before the first gradient is
computed and counts as spent from then on, committed or not, so that a crash can only count too
much, never too little.  ``docs/ledger.md`` explains what the file proves and what it cannot.

Modules: `entries` (what a row says), `chain` (is a file whole?), `head` (the small file that shows
a cut tail), `storage` (durable appending), `spends` (what rows add up to), `account` (reserve and
commit), `reading` (a ledger looked at without writing).
"""

from client.accounting import BudgetExceeded
from client.ledger.account import Ledger
from client.ledger.entries import LEDGER_VERSION, Entry, LedgerError, Reservation, Spend
from client.ledger.reading import read, verify
from client.ledger.spends import composed_with, compositions, is_planned, reservations, spent, total

__all__ = [
    "LEDGER_VERSION",
    "BudgetExceeded",
    "Entry",
    "Ledger",
    "LedgerError",
    "Reservation",
    "Spend",
    "composed_with",
    "compositions",
    "is_planned",
    "read",
    "reservations",
    "spent",
    "total",
    "verify",
]
