# inferd on CPUs. What it holds is locked by hash in deploy/image; deploy/README.md says where the digest of the base is from.
# `make test-image` builds it on a base of its own and has its process answer a request.
ARG BASE=docker.io/library/debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM ${BASE} AS builder
# Versions are those of the base's release, which its digest fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev libnghttp2-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY deploy/image/requirements.lock deploy/image/requirements-build.lock deploy/image/slim.sh deploy/image/
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: -r deploy/image/requirements-build.lock
# Without pip in it: the environment that is shipped installs nothing.
RUN python3 -m venv --without-pip /opt/inferd \
    && /build/bin/pip --python /opt/inferd/bin/python install --no-cache-dir --require-hashes --only-binary=:all: \
       -r deploy/image/requirements.lock
COPY setup.py pyproject.toml MANIFEST.in README.md CHANGELOG.md LICENSE ./
COPY proto proto
COPY ext ext
COPY inferd inferd
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/pip --python /opt/inferd/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && /build/bin/pip --python /opt/inferd/bin/python check \
    && deploy/image/slim.sh /opt/inferd \
    && /opt/inferd/bin/python -I -c 'import cryptography.hazmat.primitives.asymmetric.rsa, inferd.app, uvloop, watchfiles, yaml'

FROM ${BASE} AS runtime
ARG VERSION=0.1.0.dev0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="inferd" \
      org.opencontainers.image.description="A gRPC inference server for ONNX models that speaks the Open Inference Protocol" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libnghttp2-14 python3 \
    && rm -rf /var/lib/apt/lists/* /usr/share/man/* \
    && find /var/cache /var/log -type f -delete \
    && find /usr/share/doc -type f ! -name copyright -delete \
    && mkdir /models
COPY --from=builder /opt/inferd /opt/inferd
# It writes nothing, so it runs on a read-only root; modules are compiled when the image is built.
ENV PATH=/opt/inferd/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    INFERD_LOG_FORMAT=json \
    INFERD_MODELS_PATH=/models
USER 65532:65532
EXPOSE 8001 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["inferd", "health"]
ENTRYPOINT ["inferd"]
CMD ["serve"]
