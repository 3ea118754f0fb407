"""`python -m unquant`: the command line."""

from __future__ import annotations

from unquant.cli import main

if __name__ == "__main__":
    main()
