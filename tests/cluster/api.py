"""The API server over https, and kubectl where that knows better: apply, diff, exec."""

import http.client
import json
import os
import ssl
import subprocess

from render import Failed, run, tool

HEADERS = {"Authorization": "Bearer admin-token", "Accept": "application/json"}


class Api:
    def __init__(self, kubeconfig):
        self.kubeconfig = kubeconfig
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent)}
        self.context = ssl._create_unverified_context()

    def request(self, method, path, body=None, kind="application/json"):
        connection = http.client.HTTPSConnection("127.0.0.1", 6443, context=self.context, timeout=30)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {**HEADERS, "Content-Type": kind})
            answer = connection.getresponse()
            said = answer.read().decode()
        except OSError as error:
            raise Failed(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise Failed(f"{method} {path}: {answer.status}: {said[:500]}")
        return said

    def text(self, path):
        return self.request("GET", path)

    def get(self, path):
        return json.loads(self.request("GET", path))

    def there(self, path):
        """What is at that path, or None."""
        try:
            return self.get(path)
        except Failed as failed:
            if ": 404: " in str(failed):
                return None
            raise

    def post(self, path, body):
        return self.request("POST", path, body)

    def patch(self, path, body):
        return self.request("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path, grace=None):
        return self.request("DELETE", path, {} if grace is None else {"gracePeriodSeconds": grace})

    def kubectl(self, *arguments, text=None):
        return run([tool("kubectl"), *arguments], env=self.environment, input=text)

    def apply(self, text):
        return self.kubectl("apply", "-f", "-", text=text)

    def exec(self, namespace, pod, container, *command):
        """The exit code, and what was said."""
        done = subprocess.run(
            [tool("kubectl"), "-n", namespace, "exec", pod, "-c", container, "--", *command],
            env=self.environment, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr
