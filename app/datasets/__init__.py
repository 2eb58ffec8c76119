"""Data sets on their way in: received, unpacked, checked and kept, without HTTP and without SQL."""
