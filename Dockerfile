# What compiles and downloads stays here: the last stage takes what it has made.
FROM python:3.11-slim AS build
WORKDIR /app
RUN python -m venv --without-pip /venv
COPY requirements.txt pyproject.toml hatch_build.py README.md ./
COPY chattable chattable
RUN pip --python /venv/bin/python install --no-cache-dir -r requirements.txt

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 INSTANCE_PATH=/data PORT=5000
WORKDIR /app
COPY --from=build /venv /venv
COPY . .
COPY --from=build /app/chattable/static/vendor chattable/static/vendor
RUN python -m compileall -q . && mkdir /data && chown 10001 /data
USER 10001
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", \
  "import os, urllib.request as ask; ask.urlopen('http://127.0.0.1:{PORT}{SCRIPT_NAME}/up'.format_map({'SCRIPT_NAME': ''} | os.environ))"]
# The Procfile's web; a worker and the migrations are other commands, see compose.yaml.
CMD ["python", "-m", "pages.start", "gunicorn", "--logger-class", "pages.gunicorn.Logger", \
  "--worker-class", "gevent", "--worker-connections", "10000", "--graceful-timeout", "2", \
  "--keep-alive", "130", "--no-control-socket", "app:create_app()"]
