# One image for the five services: the command chooses, `python -m payment_svc` or another of them.
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
       fi

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin saga
COPY --from=dependencies /venv /venv
WORKDIR /app
COPY common/ common/
COPY payment_svc/ payment_svc/
COPY reservation_svc/ reservation_svc/
COPY point_svc/ point_svc/
COPY queue_svc/ queue_svc/
COPY notify_svc/ notify_svc/
COPY ops/ ops/
COPY saga ./
# Compiled once here, since a service may not write beside its sources. var holds SQLite's files, the default.
RUN /venv/bin/python -m compileall -q . \
    && ln -s /app/saga /venv/bin/saga \
    && mkdir var && chown saga var

ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEALTH_PORT=8080 \
    LOG_FORMAT=json
USER saga
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "common.health"]
