"""A world of pictures that people drew: emoji of several vendors, with Unicode's names."""
