# syntax=docker/dockerfile:1

# One image for all services: `docker run weft collector`, `weft check`, ... It holds the binary, the shipped journeys
# and audiences, and a configuration that fits a container. docker-compose.yml builds and runs it.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
# The modules first: they change less often than the code.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY pkg pkg
COPY schemas schemas
COPY services services
# The image below has no C library. What loads libchdb.so for 'weft up' would need one, even with CGO_ENABLED=0, and is of
# no use there: the tag leaves it out, and readelf sees that nothing else asks for one.
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags='-s -w' -tags nolibchdb -o /out/weft ./services/weft \
    && readelf --program-headers /out/weft > /tmp/headers && ! grep INTERP /tmp/headers \
    && mkdir /out/data

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="weft" \
      org.opencontainers.image.description="A streaming customer data platform" \
      org.opencontainers.image.source="https://github.com/weft-cdp/weft" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/weft /weft
COPY schemas/journeys/*.yaml /etc/weft/journeys/
COPY schemas/audiences/*.yaml /etc/weft/audiences/
COPY scripts/docker/image.yaml /etc/weft/weft.yaml
# For the keys that Weft makes itself (data_dir). A volume that is mounted here takes its owner over.
COPY --from=build --chown=65532:65532 /out/data /var/lib/weft
# --config wins over it, and the other WEFT_ variables over the file.
ENV WEFT_CONFIG=/etc/weft/weft.yaml
# nonroot of the base image, by number, so that runAsNonRoot of Kubernetes can tell.
USER 65532:65532
# The HTTP door, the profile API; health and metrics.
EXPOSE 8080 8081 8090
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["/weft", "healthcheck"]
ENTRYPOINT ["/weft"]
CMD ["help"]
