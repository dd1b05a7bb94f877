# An image that serves a matcher over HTTP on the CPU; see docs/production.md.
# The root file system may be read-only: only /data and /tmp are written to.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/pairmatch
ENV PATH=/opt/pairmatch/bin:$PATH
# The builds of PyTorch for CPUs, which are gigabytes smaller; versions are bounded in pyproject.toml
# hadolint ignore=DL3013
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip install --no-cache-dir "/source[serve,onnx]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/pairmatch /opt/pairmatch
RUN groupadd --system --gid 10001 pairmatch \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /data pairmatch \
    && install --directory --owner=10001 --group=10001 --mode=0700 \
        /data /data/matcher /data/galleries /data/exclusions /data/store /data/models
ENV PATH=/opt/pairmatch/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/data/models \
    XDG_CACHE_HOME=/data/store
WORKDIR /data
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["pairmatch"]
# PAIRMATCH_TOKEN must be set, since the service listens on all addresses
CMD ["serve", "/data/matcher", "--host", "0.0.0.0", "--gallery", "a=/data/galleries/a", \
    "--gallery", "b=/data/galleries/b", "--exclusions", "/data/exclusions/blocks.sqlite", \
    "--store", "/data/store/store.sqlite"]
