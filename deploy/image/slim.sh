#!/bin/sh
# slim.sh ENVIRONMENT: take out of a Python environment what serving does not read. The Dockerfiles run it in the builder.
set -eu
site=$("$1/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Tests, and what compilers and type checkers read.
find "$site" -depth -type d \( -name tests -o -name include \) -exec rm -r {} +
find "$site" -type f \( -name '*.a' -o -name '*.c' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.pyx' \) -delete
# What makes models rather than runs them, and what builds extensions.
for part in onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers numpy/distutils numpy/f2py; do
  rm -rf "${site:?}/$part"
done
# Symbols that only debuggers read, of those that come with many. Libraries whose paths a wheel's maker has patched, such
# as NumPy's, are left as they are.
for part in cryptography inferd uvloop watchfiles yaml; do
  find "$site/$part" -name '*.so' -exec strip --strip-unneeded {} +
done
