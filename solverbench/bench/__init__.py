"""The benchmark: from requested solvers, teachers and budgets to stored results and a report's bundle."""
