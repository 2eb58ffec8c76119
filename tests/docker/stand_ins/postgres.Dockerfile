# In place of the image of PostgreSQL: Debian's package, the user of the image, and what its entrypoint does for us.
FROM sds-clip-test/debian
ENV PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN groupadd --system --gid 999 postgres && useradd --system --uid 999 --gid 999 --home-dir /var/lib/postgresql postgres \
    && apt-get update && apt-get install --yes --no-install-recommends postgresql-17 util-linux \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/17 \
    && install --directory --owner=postgres --group=postgres --mode=1777 "$PGDATA" /var/run/postgresql
COPY postgres_entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["sh", "/usr/local/bin/docker-entrypoint.sh"]
STOPSIGNAL SIGINT
CMD ["postgres"]
