import http.server
import subprocess
import sys


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        number = subprocess.run(["sh", "-c", "echo $((6 * 7))"], capture_output=True, check=True).stdout
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"python answers " + number)

    def log_message(self, *_):
        pass


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
