"""What makes the tables of this repository's own pages; no part of the package."""
