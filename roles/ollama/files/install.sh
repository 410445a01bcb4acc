# shellcheck shell=sh
# Unpack an archive (or take a bare binary) as one release: it appears under its name at once and whole, or not at all.
# Arguments: archive, release folder, version.
archive=$1 release=$2 version=$3
part=$release.part
umask 022
rm -rf "$part"
mkdir -p "$part/bin"
case $archive in
  *.tar.zst) tar --extract --zstd --no-same-owner --file "$archive" --directory "$part" ;;
  *.tgz | *.tar.gz) tar --extract --gzip --no-same-owner --file "$archive" --directory "$part" ;;
  *) install -m 0755 "$archive" "$part/bin/ollama" ;;
esac
# With no server to ask (port 1), it tells its own version.
said=$(HOME=$part OLLAMA_HOST=127.0.0.1:1 "$part/bin/ollama" --version 2>&1) || {
  echo "the binary of $archive does not run on this host: $said" >&2
  exit 1
}
case " $(echo "$said" | tr '\n' ' ')" in
  *" version is $version "*) ;;
  *)
    echo "the archive $archive is not of version $version; its binary says: $said" >&2
    exit 1
    ;;
esac
rm -rf "$part/.ollama" "$release"
mv "$part" "$release"
