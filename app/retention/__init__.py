"""Retention: removes jobs, evaluations, versions and data sets that nobody has used for as long as the settings say."""
