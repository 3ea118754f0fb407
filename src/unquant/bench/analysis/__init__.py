"""What rows of results say: means, curves, rate differences, comparisons at equal bytes."""
