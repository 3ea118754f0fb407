# The command `unquant` in a container, without root, for CPUs, and for KubeRay: docs/scale.md.
FROM python:3.11-slim AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/unquant
ENV PATH=/opt/unquant/bin:$PATH
# torch first, and before our own files: its layer is the largest, and stays while they change
COPY constraints.txt .
RUN pip install -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
# ray[default]: KubeRay hands jobs to the dashboard
RUN pip install -c constraints.txt '.[formats,bulk]' 'ray[default]'

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 unquant
COPY --from=build /opt/unquant /opt/unquant
ENV PATH=/opt/unquant/bin:$PATH OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/unquant
# it takes 4 seconds of a core, so seldom; where a batch keeps all cores busy it waits for its turn
HEALTHCHECK --interval=30m --timeout=2m --start-period=2m --retries=3 CMD ["unquant", "selftest", "--quick"]
ENTRYPOINT ["unquant"]
CMD ["--help"]
