# The second half: the kernel host, as this version of Cellgate has it.
ARG BASE
FROM ${BASE}
ARG SITE
COPY site/ ${SITE}/
RUN python3 -m compileall -q "${SITE}/cellgate_kernel"
ENTRYPOINT ["python3", "-m", "cellgate_kernel"]
CMD []
