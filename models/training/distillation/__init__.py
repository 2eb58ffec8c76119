"""The losses by which a frozen teacher reaches the student's image features, one file per objective."""
