# In place of the image of Python, where no registry can be reached: Debian with the interpreter that runs the tests.
FROM sds-clip-test/debian
COPY tree /
RUN ln -s python3 /usr/local/bin/python && ldconfig && python -c "import bz2, ctypes, lzma, sqlite3, ssl, venv, zlib"
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
