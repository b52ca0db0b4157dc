# The same image as `make image` makes: two static programs, and nothing else. A test compares them.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v1.2.3 \
#     --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED=2026-01-01T00:00:00Z .

FROM --platform=$BUILDPLATFORM golang:1.26.8 AS build
ARG TARGETARCH
ARG VERSION=devel
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN GOOS=linux GOARCH=$TARGETARCH GOAMD64=v1 GOARM64=v8.0 CGO_ENABLED=0 go build -trimpath -tags grpcnotrace \
    -ldflags "-s -w -X github.com/horkos/horkos/version.version=$VERSION" -buildvcs=false \
    -o /programs/ ./cmd/horkos ./cmd/horkos-node

FROM scratch
ARG VERSION=devel
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="Horkos" \
      org.opencontainers.image.description="Keeps images that nobody you trust has attested off Kubernetes nodes" \
      org.opencontainers.image.source="https://github.com/horkos/horkos" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
COPY --from=build /programs/horkos /programs/horkos-node /
USER 65532:65532
ENTRYPOINT ["/horkos"]
