#!/bin/sh
# Remove from a virtual environment what a gateway never reads.
# Usage: slim.sh FOLDER
set -eu
cd "$1"/lib/python3*/site-packages
# Of our own code, what needs Django or torch.
for app in accounts inference registry; do
    rm -rf "modelyard/$app/admin" "modelyard/$app/api" "modelyard/$app/migrations" \
        "modelyard/$app/models" "modelyard/$app/static" "modelyard/$app/templates"
done
rm -rf modelyard/examples modelyard/explain modelyard/platform modelyard/templates
find . -type d -name tests -prune -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.a' \) -delete
rm -rf numpy/distutils numpy/f2py
# Pictures are PNG or JPEG, and nobody draws text.
rm -f PIL/_avif* PIL/_webp* PIL/_imagingft* PIL/_imagingcms* pillow.libs/libavif* \
    pillow.libs/libharfbuzz* pillow.libs/libfreetype* pillow.libs/libwebp* \
    pillow.libs/libsharpyuv* pillow.libs/liblcms* pillow.libs/libbrotli* pillow.libs/libpng*
strip --strip-debug uvloop/*.so
# Compile what is imported, and nothing else: nothing can be written there later, and
# compiling would take a second of each start.
find . -name __pycache__ -prune -exec rm -rf {} +
"$1/bin/python" -c '
import inference.gateway.__main__, inference.gateway.grpc.server, PIL.Image
import inference.installation.healthy
PIL.Image.preinit()'
