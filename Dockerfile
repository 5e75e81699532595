# The image holds one static binary and the certificates of public authorities. It runs as an ordinary user, on nothing at all (scratch),
# or on any base that your platform asks for: --build-arg BASE=…. Name both images by digest in your own builds.
ARG BUILDER=golang:1.26-bookworm
ARG BASE=scratch

FROM ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=unknown
ARG TARGETOS=linux
ARG TARGETARCH=amd64
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath \
    -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /kedge ./cmd/kedge

FROM ${BASE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /kedge /usr/local/bin/kedge
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/kedge"]
