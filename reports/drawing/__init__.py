"""The drawing code of a report's figures: matplotlib, seaborn, pandas and numpy, and no other part of the project.

The script beside a figure is a copy of some of these modules, so names that one script contains are unique.
"""
