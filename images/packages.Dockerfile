# The first half of an image: a base, and the packages that `cellgate images` has fetched for its Python. Made again only
# when one of these changes. Like the second, built without a network.
ARG BASE
FROM ${BASE}
ARG SITE
COPY site/ ${SITE}/
# All that a session writes lies in one tmpfs at /workspace: one cap on bytes and inodes is behind its three directories.
RUN python3 -m compileall -q "${SITE}"; \
    mkdir -p /workspace /home /run/cellgate && rm -rf /tmp /var/tmp /work /home/user /var/log /var/spool && \
    ln -s workspace/tmp /tmp && ln -s /tmp /var/tmp && ln -s workspace/work /work && ln -s ../workspace/home /home/user
