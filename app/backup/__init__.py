"""Backups of the database and the files that its rows name, and the check that both agree (decision 53).

named.py        which files the rows name
archive.py      the format of a backup: a tar file that ends with a manifest
scratch.py      the folder in the data folder in which a backup or a restore works
links.py        hard links that keep files while a backup is written
backup.py       database and files -> archive
restore.py      archive -> an empty database, and a data folder without files
integrity.py    what is missing or damaged, and what no row names
"""
