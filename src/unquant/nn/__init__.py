"""Networks and their building blocks. No loss and no input/output here."""
