# The service itself, on top of the packages that it needs: for docker-compose.yml.
ARG BASE
FROM ${BASE}
ARG SITE
COPY site/ ${SITE}/
RUN python3 -m compileall -q "${SITE}/cellgate" "${SITE}/cellgate_kernel" && rm /tmp /var/tmp && mkdir -m 1777 /tmp /var/tmp
ENTRYPOINT ["python3", "-m", "cellgate"]
CMD ["serve"]
