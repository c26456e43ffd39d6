# Images of Modelyard: `docker build --target gateway|site|engine .`; see docs/containers.md.
# Any image of Debian or a relative with Python 3.11, 3.12 or 3.13 as python3 will do.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS tools
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /tools \
    && /tools/bin/pip install --no-cache-dir --upgrade pip==26.3
WORKDIR /source
COPY constraints.txt ./

FROM tools AS wheel
COPY . ./
RUN /tools/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM tools AS gateway-packages
COPY deploy/containers/gateway.txt ./
COPY deploy/containers/slim.sh ./
RUN python3 -m venv --without-pip /opt/modelyard \
    && /tools/bin/pip --python /opt/modelyard/bin/python install --no-cache-dir \
        --no-compile --no-deps --constraint constraints.txt --requirement gateway.txt
COPY --from=wheel /wheels /wheels
RUN /tools/bin/pip --python /opt/modelyard/bin/python install --no-cache-dir \
        --no-compile --no-deps /wheels/*.whl \
    && sh slim.sh /opt/modelyard

FROM tools AS engine-packages
# The index with builds of torch for one kind of device, as an address. The usual builds
# run on processors and on CUDA devices, and take several gigabytes.
ARG TORCH_INDEX=
COPY pyproject.toml deploy/containers/requirements.py ./
# Apart from the wheel, so that a change of the code installs no packages again.
RUN python3 requirements.py s3 >requirements.txt \
    && python3 -m venv --without-pip /opt/modelyard \
    && /tools/bin/pip --python /opt/modelyard/bin/python install --no-cache-dir \
        --no-compile --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement requirements.txt
# Some packages hold files for other versions of Python, which cannot be compiled.
RUN python3 -m compileall -qq -j 0 -x '/tests?/' /opt/modelyard/lib || true
COPY --from=wheel /wheels /wheels
RUN /tools/bin/pip --python /opt/modelyard/bin/python install --no-cache-dir \
        --no-deps /wheels/*.whl

FROM engine-packages AS site-packages
COPY deploy/containers/not-in-site.txt deploy/containers/without.py ./
RUN /opt/modelyard/bin/python without.py not-in-site.txt

FROM ${BASE} AS common
# One group shares the home; each kind of process has a user of its own.
RUN printf 'modelyard:x:10001:\n' >>/etc/group \
    && printf '%s:x:%s:10001::/var/lib/modelyard:/usr/sbin/nologin\n' \
        modelyard 10001 modelyard-gateway 10002 modelyard-engine 10003 >>/etc/passwd
ENV PATH=/opt/modelyard/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LOG_TO=stdout \
    MODELYARD_HOME=/var/lib/modelyard \
    MODELYARD_NEEDS_VOLUME=true \
    MODELYARD_HOST=0.0.0.0 \
    MODELYARD_OPERATOR_HOST=0.0.0.0 \
    MODELYARD_PORT=8000 \
    MODELYARD_OPERATOR_PORT=8001 \
    MODELYARD_GRPC_PORT=8002
WORKDIR /var/lib/modelyard
STOPSIGNAL SIGTERM

FROM common AS gateway
COPY --from=gateway-packages /opt/modelyard /opt/modelyard
COPY deploy/containers/make_home.py /tmp/make_home.py
RUN python /tmp/make_home.py && rm /tmp/make_home.py
USER 10002:10001
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["python", "-m", "inference.installation.healthy", "gateway"]
ENTRYPOINT ["python", "-m", "inference.gateway"]

FROM common AS engine
COPY --from=engine-packages /opt/modelyard /opt/modelyard
COPY deploy/containers/make_home.py /tmp/make_home.py
RUN python /tmp/make_home.py && rm /tmp/make_home.py
USER 10003:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-m", "inference.installation.healthy", "host"]
ENTRYPOINT ["python", "-m", "inference.host"]
CMD ["--devices", "cpu"]

FROM common AS site
COPY --from=site-packages /opt/modelyard /opt/modelyard
COPY deploy/containers/make_home.py /tmp/make_home.py
RUN python /tmp/make_home.py && rm /tmp/make_home.py
USER 10001:10001
# For the other processes of this image, compose.yaml names theirs.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-m", "inference.installation.healthy", "site"]
ENTRYPOINT ["modelyard"]
CMD ["run", "site"]
