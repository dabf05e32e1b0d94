// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

var _ = register(&Program{Name: "apt", Category: "background", App: "apt", Version: "apt-get --version",
	Needs: []Need{needNGINX, {"apt-get", "apt"}, {"apt-ftparchive", "apt-utils"}, {"dpkg-deb", "dpkg"}}, Start: startAPT})

const aptServer = `daemon off; user root; worker_processes 1; pid %[1]s/pid; error_log stderr;
events { worker_connections 256; }
http {
  access_log off; sendfile on; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]d%[3]s; listen [::]:%[2]d%[3]s; server_name %[4]s; root %[1]s/pool; ssl_certificate %[5]s; ssl_certificate_key %[6]s;
  }
}
`

const aptClient = `Dir::Etc "%[1]s/etc";
Dir::State "%[1]s/state"; Dir::State::status "%[1]s/state/status"; Dir::Cache "%[1]s/cache";
APT::Sandbox::User "root"; Acquire::Languages "none"; Acquire::https::CaInfo "%[2]s"; Debug::NoLocking "1";
`

// newRelease builds more packages and the indexes of all.
const newRelease = `set -e; cd pool
while read -r name version size; do
	mkdir -p "../build/DEBIAN" "../build/usr/share/$name"
	printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Lab <lab@example.org>\nDescription: %s\n' "$name" "$version" "$name" > ../build/DEBIAN/control
	head -c "$size" /dev/urandom > "../build/usr/share/$name/data"
	dpkg-deb --build -Znone ../build "${name}_${version}_all.deb" > /dev/null
	rm -r ../build
done
apt-ftparchive packages . > Packages; gzip -kf Packages
apt-ftparchive release . > ../Release; mv ../Release Release`

// startAPT: machines look for updates, over HTTP or HTTPS, and fetch some packages.
func startAPT(ctx context.Context, r *Round) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port, tls := r.Server(), r.Port(), r.Chance(.5)
	scheme, option := "http", ""
	if tls {
		scheme, option = "https", " ssl"
	}
	if err := os.Mkdir(filepath.Join(s.Dir, "pool"), 0o755); err != nil {
		return nil, err
	}
	var packages []string
	list := ""
	for i := range 6 + r.IntN(14) {
		name := fmt.Sprintf("%s%d", pick(r.draw, "lib", "tool", "font", "python3-part"), i)
		packages = append(packages, name)
		list += fmt.Sprintf("%s %d.%d %d\n", name, 1+r.IntN(5), r.IntN(30), r.Size(3_000, 6_000_000))
	}
	if _, err := s.RunInput(ctx, list, "sh", "-c", newRelease); err != nil {
		return nil, err
	}
	conf, err := s.Write("apt-nginx.conf", fmt.Sprintf(aptServer, s.Dir, port, option, s.Name, cert.Cert, cert.Key))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "nginx", "-p", s.Dir, "-e", "stderr", "-c", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	source := fmt.Sprintf("deb [trusted=yes] %s://%s:%d ./\n", scheme, s.Name, port)
	return func(ctx context.Context, c *Client) error {
		// Each session is another machine, with a state of its own.
		machine := fmt.Sprintf("apt%d", c.Uint32())
		for _, dir := range []string{"state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"} {
			if err := os.MkdirAll(filepath.Join(c.Dir, machine, dir), 0o755); err != nil {
				return err
			}
		}
		for file, text := range map[string]string{"etc/sources.list": source, "state/status": ""} {
			if _, err := c.Write(machine+"/"+file, text); err != nil {
				return err
			}
		}
		// In a file, because apt reads this machine's own configuration, with its proxies and hooks, before the command line.
		conf, err := c.Write(machine+"/apt.conf", fmt.Sprintf(aptClient, filepath.Join(c.Dir, machine), ca))
		if err != nil {
			return err
		}
		apt := func(args ...string) error {
			_, err := c.Run(ctx, "env", append([]string{"APT_CONFIG=" + conf, "apt-get", "-q"}, args...)...)
			return err
		}
		if err := apt("update"); err != nil {
			return err
		}
		for range c.IntN(3) {
			if err := c.Think(ctx, pausing); err != nil {
				return err
			}
			wanted := []string{"--download-only", "--yes", "install"}
			for range 1 + c.IntN(4) {
				wanted = append(wanted, pick(c.draw, packages...))
			}
			if err := apt(wanted...); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
