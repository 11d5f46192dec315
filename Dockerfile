# One image for the five services, the `saga` command and `tools.rights`: the command chooses, `python -m payment_svc` or
# another of them. A digest in PYTHON_IMAGE (python:3.13-slim@sha256:...) pins what it stands on, too.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS dependencies
# The asterisks let var/wheels be absent. With wheels gathered outside, the build needs no way to a package index;
# without them, or with those of another release, it asks the index.
COPY requirements/runtime.txt var*/wheels* /build/
RUN python -m venv --without-pip /venv \
    && pip="python -m pip --python /venv/bin/python --no-cache-dir --disable-pip-version-check" \
    && install="install --require-hashes --no-deps --only-binary=:all: --requirement /build/runtime.txt" \
    && if ls /build/*.whl > /dev/null 2>&1; then \
           $pip $install --no-index --find-links /build || $pip $install; \
       else \
           $pip $install; \
       fi \
    # What only a compiler reads.
    && find /venv -type f '(' -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd' ')' -delete

FROM ${PYTHON_IMAGE} AS python
# Nobody installs anything in here, or becomes somebody else: no pip, no setuid program. Debian's list of packages stays
# true, since scanners and the SBOM read it.
RUN useradd --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin saga \
    && gone=$(dpkg-query -W -f '${Package}\n' | grep -E '^python3.*-(pip|venv|pip-whl|setuptools-whl)$' || true) \
    && if [ -n "$gone" ]; then apt-get purge --yes --auto-remove $gone; fi \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip \
        /usr/share/doc /usr/share/info /usr/share/locale /usr/share/man /usr/share/lintian \
        /var/cache/* /var/lib/apt/lists/* /var/log/* /root/.cache /tmp/* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s '{}' +

FROM scratch
# One layer: what was taken away above is gone, and not only hidden.
COPY --from=python / /
COPY --from=dependencies /venv /venv
WORKDIR /app
COPY common/ common/
COPY payment_svc/ payment_svc/
COPY reservation_svc/ reservation_svc/
COPY point_svc/ point_svc/
COPY queue_svc/ queue_svc/
COPY notify_svc/ notify_svc/
COPY ops/ ops/
COPY tools/__init__.py tools/
COPY tools/rights/ tools/rights/
COPY saga ./
ENV PATH=/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    HEALTH_PORT=8080 \
    LOG_FORMAT=json
# Compiled once here, since a service may not write beside its sources. var holds SQLite's files, the default, and the
# files of users that tools.rights makes; both want a volume.
RUN python -m compileall -q . \
    && ln -s /app/saga /venv/bin/saga \
    && mkdir --parents var/secrets \
    && chown --recursive saga var \
    && chmod 700 var/secrets

# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "common.health"]
