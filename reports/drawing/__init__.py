"""The drawing code of a report's figures: matplotlib, seaborn, pandas and numpy, and no other part of the project.

The script beside a figure is a copy of these modules, so no two of them that stand in one script share a name.
"""
